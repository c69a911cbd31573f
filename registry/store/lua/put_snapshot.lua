-- Writes a node's snapshot and its change notice together, unless a newer connection has written one.
-- KEYS 1 nodes hash
-- KEYS 2 changes stream
-- KEYS 3 sequence integer, counts changes without a gap
-- KEYS 4 digest integer below 2^48, the sum of one hash for each snapshot
-- KEYS 5 birth text, set with the first change: another one tells that the data was lost
-- ARGV 1 node_id id
-- ARGV 2 connection_epoch epoch
-- ARGV 3 revision counter of this connection
-- ARGV 4 snapshot JSON
-- RETURNS put | stale

local function part(id, epoch, revision)
  local name = string.format('%s|%d|%d', id, epoch, revision)
  return tonumber(string.sub(redis.sha1hex(name), 1, 12), 16)
end

local before = redis.call('HGET', KEYS[1], ARGV[1])
local epoch, revision = tonumber(ARGV[2]), tonumber(ARGV[3])
local digest = tonumber(redis.call('GET', KEYS[4]) or '0') + part(ARGV[1], epoch, revision)
if before then
  local known = cjson.decode(before)
  if known.connection_epoch > epoch or (known.connection_epoch == epoch and known.revision > revision) then
    return {'stale'}
  end
  digest = digest - part(ARGV[1], known.connection_epoch, known.revision)
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
redis.call('SET', KEYS[4], string.format('%.0f', digest % 2 ^ 48))
local n = redis.call('INCR', KEYS[3])
if n == 1 then
  redis.call('SET', KEYS[5], table.concat(redis.call('TIME'), '.'))
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', '10000', '*', 'n', n, 'put', ARGV[4])
return {'put'}
