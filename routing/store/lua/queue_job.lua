-- Marks the job as waiting for a slot, if the caller's attempt is still the current one.
-- KEYS 1 job hash
-- ARGV 1 attempt the caller believes current
-- RETURNS queued | stale attempt | ended state | unknown

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
redis.call('HSET', KEYS[1], 'state', 'queued', 'node', '')
return {'queued'}
