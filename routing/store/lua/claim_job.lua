-- Gives a waiting job's attempt to a node and reads the job, if no other attempt and no end came first.
-- KEYS 1 job hash
-- ARGV 1 attempt number that waits; a job that had none waits for its first
-- ARGV 2 node id
-- ARGV 3 decision JSON object of why this node, or ''
-- RETURNS claimed now_ms state attempt node deadline_ms accepted_ms brief payload history seq decisions | stale

local job = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'decisions')
if job[1] ~= 'queued' or math.max(tonumber(job[2]), 1) ~= tonumber(ARGV[1]) then
  return {'stale'}
end
redis.call('HSET', KEYS[1], 'state', 'assigned', 'attempt', ARGV[1], 'node', ARGV[2])
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[1], 'decisions', job[3] and (job[3] .. ',' .. ARGV[3]) or ARGV[3])
end
local time = redis.call('TIME')
return {'claimed', string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000)),
  unpack(redis.call('HMGET', KEYS[1], 'state', 'attempt', 'node', 'deadline_ms', 'accepted_ms',
    'brief', 'payload', 'history', 'seq', 'decisions'))}
