-- Prolongs the lease for its holder under its epoch, and for no one else.
-- KEYS 1 leader string
-- KEYS 2 epoch integer
-- ARGV 1 candidate id
-- ARGV 2 epoch fencing token
-- ARGV 3 ttl ms
-- RETURNS renewed | lost

if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('GET', KEYS[2]) ~= ARGV[2] then
  return {'lost'}
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {'renewed'}
