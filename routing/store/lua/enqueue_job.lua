-- Puts a job into a pool's queue unless the queue is full: by priority, then by age.
-- KEYS 1 index hash of queue name to length
-- KEYS 2 queue sorted set of job ids by rank
-- ARGV 1 name pool
-- ARGV 2 job_id id
-- ARGV 3 priority 0 to 9, 9 goes first
-- ARGV 4 limit jobs
-- ARGV 5 accepted_ms server time the job was accepted at: its age, also when it waits again
-- RETURNS queued length | full length

local length = redis.call('ZCARD', KEYS[2])
if not redis.call('ZSCORE', KEYS[2], ARGV[2]) then
  if length >= tonumber(ARGV[4]) then
    return {'full', tostring(length)}
  end
  -- A double holds 2^53: ten priorities of 8 * 10^14, and the time in us counted from 2020.
  local rank = (9 - tonumber(ARGV[3])) * 800000000000000 + (tonumber(ARGV[5]) - 1577836800000) * 1000
  redis.call('ZADD', KEYS[2], string.format('%.0f', rank), ARGV[2])
  length = length + 1
end
redis.call('HSET', KEYS[1], ARGV[1], length)
return {'queued', tostring(length)}
