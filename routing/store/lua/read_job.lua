-- Reads a job with the server's time, so that what is left of its deadline can be told.
-- KEYS 1 job hash
-- RETURNS found now_ms state attempt node deadline_ms accepted_ms brief payload history seq decisions | unknown

local job = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'node', 'deadline_ms', 'accepted_ms',
  'brief', 'payload', 'history', 'seq', 'decisions')
if not job[1] then
  return {'unknown'}
end
local time = redis.call('TIME')
local now_ms = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
return {'found', now_ms, unpack(job)}
