/* The page's socket: says what it watches, confirms each frame, and comes back by itself. */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;

export function connect({ topics, onFrame, onState }) {
  let pause = FIRST_PAUSE_MS;
  let timer = 0;

  function open() {
    clearTimeout(timer);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws/ops`);
    socket.onopen = () => socket.send(JSON.stringify({ watch: topics }));
    socket.onmessage = (event) => {
      pause = FIRST_PAUSE_MS;
      onState("live");
      try {
        onFrame(JSON.parse(event.data));
      } finally {
        socket.send('{"got":1}');
      }
    };
    socket.onclose = () => {
      onState("lost");
      // Full jitter, so that the pages of a restarted instance do not all come at once.
      timer = setTimeout(open, pause * (0.5 + Math.random() / 2));
      pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
    };
  }

  addEventListener("online", () => { pause = FIRST_PAUSE_MS; });
  open();
}
