-- Reads how long ago the first job of each of several flows was accepted.
-- KEYS 1.. flows sorted sets of job|attempt by time of acceptance
-- RETURNS ages milliseconds

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {'ages'}
for i, key in ipairs(KEYS) do
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  found[i + 1] = first[2] and string.format('%.0f', math.max(now_ms - tonumber(first[2]), 0)) or ''
end
return found
