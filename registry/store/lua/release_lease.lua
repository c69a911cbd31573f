-- Gives the lease up if it is still held under this epoch, and wakes the other candidates.
-- KEYS 1 leader string
-- KEYS 2 epoch integer
-- KEYS 3 changes stream
-- ARGV 1 candidate id
-- ARGV 2 epoch fencing token
-- RETURNS released | lost

if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('GET', KEYS[2]) ~= ARGV[2] then
  return {'lost'}
end
redis.call('DEL', KEYS[1])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', '1000', '*', 'kind', 'released', 'epoch', ARGV[2])
return {'released'}
