-- Takes one job out of its queue.
-- KEYS 1 index hash of queue name to length
-- KEYS 2 queue sorted set of job ids by rank
-- ARGV 1 name pool
-- ARGV 2 job_id id
-- RETURNS left | absent

-- Counted first: a cluster whose slot moves refuses a key that is not there, as after the last ZREM.
local length = redis.call('ZCARD', KEYS[2])
local removed = redis.call('ZREM', KEYS[2], ARGV[2])
length = length - removed
if length == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], length)
end
return {removed == 1 and 'left' or 'absent'}
