-- Prolongs ownership and presence for the owning connection; takes them back if they only expired; never from another owner.
-- KEYS 1 owner string
-- KEYS 2 presence string
-- KEYS 3 identity hash
-- ARGV 1 owner instance|epoch
-- ARGV 2 epoch connection epoch
-- ARGV 3 fingerprint hex
-- ARGV 4 capacity slots when not draining
-- ARGV 5 owner_ttl ms
-- ARGV 6 presence_ttl ms
-- RETURNS kept | taken owner

local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return {'taken', owner}
end
if not owner then
  local granted = tonumber(redis.call('HGET', KEYS[3], 'epoch') or '0')
  if granted > tonumber(ARGV[2]) then
    return {'taken', ''}
  end
  redis.call('HSET', KEYS[3], 'epoch', ARGV[2], 'fingerprint', ARGV[3])
end
redis.call('PEXPIRE', KEYS[3], 86400000)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[5])
-- The owner may not have heard of a drain yet.
local draining = redis.call('HEXISTS', KEYS[3], 'draining') == 1
redis.call('SET', KEYS[2], draining and '0' or ARGV[4], 'PX', ARGV[6])
return {'kept'}
