-- Makes one connection the node's owner under a higher connection epoch, unless another machine lives under its id or its living connections replace each other in turn.
-- KEYS 1 owner string
-- KEYS 2 presence string
-- KEYS 3 identity hash
-- ARGV 1 instance id
-- ARGV 2 fingerprint hex
-- ARGV 3 floor highest connection epoch the instance has seen
-- ARGV 4 capacity slots
-- ARGV 5 owner_ttl ms
-- ARGV 6 presence_ttl ms
-- ARGV 7 own connection epoch that the claiming socket has now, or 0
-- ARGV 8 limit takeovers in one window
-- ARGV 9 window ms
-- RETURNS claimed epoch previous_owner draining | conflict | contested

local owner = redis.call('GET', KEYS[1])
local identity = redis.call('HMGET', KEYS[3], 'epoch', 'fingerprint', 'draining')
local alive = owner and redis.call('EXISTS', KEYS[2]) == 1
if alive and identity[2] and identity[2] ~= ARGV[2] then
  return {'conflict'}
end
if alive and owner ~= ARGV[1] .. '|' .. ARGV[7] then
  local time = redis.call('TIME')
  local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  local counted = redis.call('HMGET', KEYS[3], 'takeovers', 'takeovers_since')
  local takeovers, since = tonumber(counted[1] or '0'), tonumber(counted[2] or '0')
  if now_ms < since or now_ms - since >= tonumber(ARGV[9]) then
    takeovers, since = 0, now_ms
  end
  if takeovers >= tonumber(ARGV[8]) then
    -- From now on anew: it stays refused for as long as it goes on trying.
    redis.call('HSET', KEYS[3], 'takeovers_since', string.format('%.0f', now_ms))
    return {'contested'}
  end
  redis.call('HSET', KEYS[3], 'takeovers', takeovers + 1, 'takeovers_since', string.format('%.0f', since))
end
local epoch = string.format('%d', math.max(tonumber(identity[1] or '0'), tonumber(ARGV[3])) + 1)
redis.call('HSET', KEYS[3], 'epoch', epoch, 'fingerprint', ARGV[2])
redis.call('PEXPIRE', KEYS[3], 86400000)
redis.call('SET', KEYS[1], ARGV[1] .. '|' .. epoch, 'PX', ARGV[5])
redis.call('SET', KEYS[2], identity[3] and '0' or ARGV[4], 'PX', ARGV[6])
return {'claimed', epoch, owner or '', identity[3] and '1' or '0'}
