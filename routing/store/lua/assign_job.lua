-- Gives the job's current or next attempt to a node, if no other attempt and no end came first.
-- KEYS 1 job hash
-- ARGV 1 expected attempt the caller believes current
-- ARGV 2 attempt number to give
-- ARGV 3 node id
-- ARGV 4 decision JSON object of why this node, or '': added to those the job has
-- RETURNS assigned | stale attempt | ended state | unknown

local job = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'decisions')
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
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'decisions', job[3] and (job[3] .. ',' .. ARGV[4]) or ARGV[4])
end
return {'assigned'}
