-- Publishes a pool configuration under the highest epoch only, and never one that is older than what stands.
-- KEYS 1 leader string
-- KEYS 2 epoch integer
-- KEYS 3 config JSON
-- KEYS 4 version integer
-- KEYS 5 changes stream
-- ARGV 1 candidate id
-- ARGV 2 epoch fencing token
-- ARGV 3 version number
-- ARGV 4 config JSON
-- ARGV 5 ttl ms
-- RETURNS published | stale epoch | behind version

local epoch = redis.call('GET', KEYS[2]) or '0'
if redis.call('GET', KEYS[1]) ~= ARGV[1] or epoch ~= ARGV[2] then
  return {'stale', epoch}
end
local version = tonumber(redis.call('GET', KEYS[4]) or '0')
local stands = redis.call('GET', KEYS[3])
-- Only the key can look like this: quotes within a text are escaped. Decoding it all takes longer.
local standing = stands and string.match(stands, '"epoch":(%d+)')
local same_epoch = standing and tonumber(standing) >= tonumber(ARGV[2])
if tonumber(ARGV[3]) < version or (same_epoch and tonumber(ARGV[3]) <= version) then
  return {'behind', string.format('%d', version)}
end
redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[5])
redis.call('SET', KEYS[4], ARGV[3])
redis.call('XADD', KEYS[5], 'MAXLEN', '~', '1000', '*', 'kind', 'published', 'config', ARGV[4])
return {'published'}
