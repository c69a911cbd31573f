-- Puts a pulled job back into its place, if its lease is still there; whoever comes second changes nothing.
-- KEYS 1 index hash of flow to waiting jobs
-- KEYS 2 pools hash of pool to waiting jobs
-- KEYS 3 news stream of flows that begin to wait or are empty
-- KEYS 4 pulled sorted set of leases by when they run out
-- KEYS 5 flow sorted set of job|attempt by time of acceptance
-- ARGV 1 name flow
-- ARGV 2 member job|attempt
-- ARGV 3 accepted_ms server time the job was accepted at
-- ARGV 4 lease token
-- RETURNS returned | settled

if not redis.call('ZSCORE', KEYS[4], ARGV[4]) then
  return {'settled'}
end
if redis.call('ZADD', KEYS[5], ARGV[3], ARGV[2]) == 1 then
  redis.call('HINCRBY', KEYS[2], string.match(ARGV[1], '^[^|]*'), 1)
  if redis.call('HINCRBY', KEYS[1], ARGV[1], 1) == 1 then
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'flow', ARGV[1], 'waits', '1')
  end
end
redis.call('ZREM', KEYS[4], ARGV[4])
return {'returned'}
