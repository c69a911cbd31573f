-- Removes ownership and presence if this connection still owns the node.
-- KEYS 1 owner string
-- KEYS 2 presence string
-- ARGV 1 owner instance|epoch
-- RETURNS dropped | taken

local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return {'taken'}
end
redis.call('DEL', KEYS[1], KEYS[2])
return {'dropped'}
