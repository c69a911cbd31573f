-- Removes a node's snapshot and tells so, unless a newer connection has written one.
-- KEYS 1 nodes hash
-- KEYS 2 changes stream
-- KEYS 3 sequence integer, counts changes without a gap
-- KEYS 4 digest integer below 2^48, the sum of one hash for each snapshot
-- KEYS 5 birth text, set with the first change: another one tells that the data was lost
-- ARGV 1 node_id id
-- ARGV 2 connection_epoch epoch
-- RETURNS removed | stale

local function part(id, epoch, revision)
  local name = string.format('%s|%d|%d', id, epoch, revision)
  return tonumber(string.sub(redis.sha1hex(name), 1, 12), 16)
end

local before = redis.call('HGET', KEYS[1], ARGV[1])
if before then
  local known = cjson.decode(before)
  if known.connection_epoch > tonumber(ARGV[2]) then
    return {'stale'}
  end
  local digest = tonumber(redis.call('GET', KEYS[4]) or '0')
  digest = digest - part(ARGV[1], known.connection_epoch, known.revision)
  redis.call('SET', KEYS[4], string.format('%.0f', digest % 2 ^ 48))
end
redis.call('HDEL', KEYS[1], ARGV[1])
local n = redis.call('INCR', KEYS[3])
if n == 1 then
  redis.call('SET', KEYS[5], table.concat(redis.call('TIME'), '.'))
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', '10000', '*', 'n', n, 'gone', ARGV[1], 'epoch', ARGV[2])
return {'removed'}
