-- Ends a job once, with the session's next terminal message; whoever comes second, or with an older attempt, changes nothing.
-- KEYS 1 meta hash
-- KEYS 2 job hash
-- KEYS 3 open sorted set of job ids by deadline
-- KEYS 4 outbox stream, ids seq-0
-- ARGV 1 job_id id
-- ARGV 2 attempt number, or 0 for whichever is current
-- ARGV 3 node id it came from, or '' for the scheduler itself
-- ARGV 4 state succeeded, failed, cancelled or expired
-- ARGV 5 body terminal message without seq
-- ARGV 6 retention ms
-- ARGV 7 outbox_limit messages
-- RETURNS finished seq instance attempt node | stale attempt | ended state seq instance | unknown

local job = redis.call('HMGET', KEYS[2], 'state', 'attempt', 'node', 'seq')
if not job[1] then
  return {'unknown'}
end
if job[1] ~= 'queued' and job[1] ~= 'assigned' and job[1] ~= 'running' then
  return {'ended', job[1], job[4] or '0', redis.call('HGET', KEYS[1], 'instance') or ''}
end
if (ARGV[2] ~= '0' and job[2] ~= ARGV[2]) or (ARGV[3] ~= '' and job[3] ~= ARGV[3]) then
  return {'stale', job[2]}
end
local seq = string.format('%d', redis.call('HINCRBY', KEYS[1], 'seq', 1))
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[7], seq .. '-0', 'body', ARGV[5])
redis.call('HSET', KEYS[2], 'state', ARGV[4], 'seq', seq)
redis.call('HDEL', KEYS[2], 'payload')
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[6])
end
-- Last: a cluster whose slot moves refuses a key that is not there, and this may remove it.
redis.call('ZREM', KEYS[3], ARGV[1])
return {'finished', seq, redis.call('HGET', KEYS[1], 'instance') or '', job[2], job[3]}
