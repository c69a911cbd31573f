-- Writes a job once per (session, utterance); whoever sends it again gets what became of it.
-- KEYS 1 meta hash
-- KEYS 2 job hash
-- KEYS 3 open sorted set of job ids by deadline
-- ARGV 1 job_id id
-- ARGV 2 state assigned or queued
-- ARGV 3 attempt 1, or 0 while queued
-- ARGV 4 node id, '' while queued
-- ARGV 5 life ms until the job expires whatever happens
-- ARGV 6 brief JSON of what every attempt needs beside the payload
-- ARGV 7 payload JSON object
-- ARGV 8 retention ms
-- ARGV 9 open_limit jobs
-- ARGV 10 index of the utterance in its session
-- ARGV 11 sent_seq last terminal message the client was sent: a failover may have lost its count
-- ARGV 12 decision JSON object of why this node, or ''
-- RETURNS accepted accepted_ms deadline_ms | duplicate state | closed | limited

local session = redis.call('HMGET', KEYS[1], 'epoch', 'closed', 'top', 'seq')
if not session[1] or session[2] then
  return {'closed'}
end
local state = redis.call('HGET', KEYS[2], 'state')
if state then
  return {'duplicate', state}
end
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[9]) then
  return {'limited'}
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local deadline_ms = string.format('%d', now_ms + tonumber(ARGV[5]))
redis.call('HSET', KEYS[2], 'state', ARGV[2], 'attempt', ARGV[3], 'node', ARGV[4],
  'deadline_ms', deadline_ms, 'accepted_ms', string.format('%d', now_ms),
  'brief', ARGV[6], 'payload', ARGV[7])
if ARGV[12] ~= '' then
  redis.call('HSET', KEYS[2], 'decisions', ARGV[12])
end
redis.call('ZADD', KEYS[3], deadline_ms, ARGV[1])
if tonumber(ARGV[11]) > tonumber(session[4] or '0') then
  redis.call('HSET', KEYS[1], 'seq', ARGV[11])
end
if tonumber(ARGV[10]) > tonumber(session[3] or '-1') then
  redis.call('HSET', KEYS[1], 'top', ARGV[10])
end
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3]}) do
  redis.call('PEXPIRE', key, ARGV[8])
end
return {'accepted', string.format('%d', now_ms), deadline_ms}
