// BullMQ over Redis, its defaults; one worker. `worker`, or `submit SINGLES BURST ROUNDS`.
// The same as bench/peers/arrival.py, in JavaScript; hrtime is CLOCK_MONOTONIC too.

import net from "node:net";
import { createRequire } from "node:module";
import { setTimeout as pause } from "node:timers/promises";

const require = createRequire(process.env.BENCH_NODE_MODULES + "/");
const { Queue, Worker } = require("bullmq");
const url = new URL(process.env.BENCH_REDIS_URL);
const connection = { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null };
const now = () => process.hrtime.bigint();
const TOGETHER = 50;
const PAUSE_MS = 2;

function work() {
  const told = net.connect(Number(process.env.BENCH_ARRIVALS_PORT), "127.0.0.1");
  told.setNoDelay(true);
  new Worker("bench", async (job) => {
    told.write(`${job.data.sent} ${now()}\n`);
  }, { connection });
}

function listen() {
  const came = [];
  let waiting = null;
  net.createServer((socket) => {
    let rest = "";
    socket.on("data", (data) => {
      const lines = (rest + data).split("\n");
      rest = lines.pop();
      came.push(...lines.map((line) => line.split(" ").map(BigInt)));
      if (waiting) { waiting(); waiting = null; }
    });
  }).listen({ fd: Number(process.env.BENCH_ARRIVALS_FD) });
  return async () => {
    while (came.length === 0) await new Promise((resolve) => { waiting = resolve; });
    return came.shift();
  };
}

async function submitAll([singles, burst, rounds]) {
  const next = listen();
  const queue = new Queue("bench", { connection });
  const submit = () => queue.add("handle", { sent: String(now()) });
  await submit();
  await next();
  const found = { pickup_us: [], tasks_per_s: [] };
  for (let round = 0; round < rounds; round++) {
    for (let single = 0; single < singles; single++) {
      await pause(PAUSE_MS);
      await submit();
      const [sent, started] = await next();
      found.pickup_us.push(Number(started - sent) / 1000);
    }
    const began = now();
    for (let done = 0; done < burst; done += TOGETHER) {
      await Promise.all(Array.from({ length: TOGETHER }, submit));
    }
    let last = began;
    for (let came = 0; came < burst; came++) {
      const started = (await next())[1];
      if (started > last) last = started;
    }
    found.tasks_per_s.push(burst / (Number(last - began) / 1e9));
  }
  process.stdout.write(JSON.stringify(found) + "\n", () => process.exit(0));
}

if (process.argv[2] === "worker") work();
else await submitAll(process.argv.slice(3).map(Number));
