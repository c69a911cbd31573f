-- Removes the oldest dead letters, as far as they are too many or too old; a bounded number a call. An empty stream goes too.
-- KEYS 1 letters stream
-- KEYS 2 index hash of entry ids by letter id
-- KEYS 3 payloads hash by letter id
-- ARGV 1 limit letters that may stay
-- ARGV 2 keep ms that a letter may stay
-- ARGV 3 most letters removed in one call
-- RETURNS trimmed length removed

local time = redis.call('TIME')
local oldest_ms = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[2])
local length = redis.call('XLEN', KEYS[1])
local entries, letters = {}, {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[3])) do
  local buried_ms = tonumber(string.match(entry[1], '^%d+'))
  if length - #entries <= tonumber(ARGV[1]) and buried_ms > oldest_ms then
    break
  end
  entries[#entries + 1] = entry[1]
  letters[#letters + 1] = entry[2][2]
end
if #entries > 0 then
  redis.call('XDEL', KEYS[1], unpack(entries))
  -- Last: a cluster whose slot moves refuses a key that is not there, and these may remove theirs.
  redis.call('HDEL', KEYS[3], unpack(letters))
  redis.call('HDEL', KEYS[2], unpack(letters))
end
if length == #entries then
  redis.call('DEL', KEYS[1])
end
return {'trimmed', tostring(length - #entries), tostring(#entries)}
