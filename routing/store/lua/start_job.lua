-- Notes that the node works on the current attempt.
-- KEYS 1 job hash
-- ARGV 1 attempt number
-- RETURNS started | stale | ended

local job = redis.call('HMGET', KEYS[1], 'state', 'attempt')
if job[1] ~= 'assigned' and job[1] ~= 'running' then
  return {'ended'}
end
if job[2] ~= ARGV[1] then
  return {'stale'}
end
redis.call('HSET', KEYS[1], 'state', 'running')
return {'started'}
