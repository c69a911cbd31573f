-- Takes back a job that was written but refused before its acknowledgement; a job that got further stays.
-- KEYS 1 job hash
-- KEYS 2 open sorted set of job ids by deadline
-- ARGV 1 job_id id
-- ARGV 2 attempt number it was written with
-- RETURNS withdrawn | kept

local job = redis.call('HMGET', KEYS[1], 'state', 'attempt')
if (job[1] ~= 'assigned' and job[1] ~= 'queued') or job[2] ~= ARGV[2] then
  return {'kept'}
end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return {'withdrawn'}
