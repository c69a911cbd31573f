-- Takes one attempt of a job out of its flow.
-- KEYS 1 index hash of flow to waiting jobs
-- KEYS 2 pools hash of pool to waiting jobs
-- KEYS 3 news stream of flows that begin to wait or are empty
-- KEYS 4 flow sorted set of job|attempt by time of acceptance
-- ARGV 1 name flow
-- ARGV 2 member job|attempt
-- RETURNS left | absent

if not redis.call('ZSCORE', KEYS[4], ARGV[2]) then
  return {'absent'}
end
-- Counted first: a cluster whose slot moves refuses a key that is not there, as after the last ZREM.
local left, pool = redis.call('ZCARD', KEYS[4]) - 1, string.match(ARGV[1], '^[^|]*')
if left == 0 then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'flow', ARGV[1], 'waits', '0')
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], left)
end
if redis.call('HINCRBY', KEYS[2], pool, -1) < 1 then
  redis.call('HDEL', KEYS[2], pool)
end
redis.call('ZREM', KEYS[4], ARGV[2])
return {'left'}
