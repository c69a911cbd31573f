-- Gives the job's current or next attempt to a node, if no other attempt and no end came first.
-- KEYS 1 job hash
-- ARGV 1 expected attempt the caller believes current
-- ARGV 2 attempt number to give
-- ARGV 3 node id
-- RETURNS assigned | stale attempt | ended state | unknown

local job = redis.call('HMGET', KEYS[1], 'state', 'attempt')
if not job[1] then
  return {'unknown'}
end
if job[1] ~= 'queued' and job[1] ~= 'assigned' and job[1] ~= 'running' then
  return {'ended', job[1]}
end
if job[2] ~= ARGV[1] then
  return {'stale', job[2]}
end
redis.call('HSET', KEYS[1], 'state', 'assigned', 'attempt', ARGV[2], 'node', ARGV[3])
return {'assigned'}
