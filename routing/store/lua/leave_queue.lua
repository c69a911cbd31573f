-- Takes one job out of its queue.
-- KEYS 1 index hash of queue name to length
-- KEYS 2 queue sorted set of job ids by rank
-- ARGV 1 name pool
-- ARGV 2 job_id id
-- RETURNS left | absent

local removed = redis.call('ZREM', KEYS[2], ARGV[2])
local length = redis.call('ZCARD', KEYS[2])
if length == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], length)
end
return {removed == 1 and 'left' or 'absent'}
