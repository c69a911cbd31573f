-- Hands a session to the instance that holds its new socket, for the bearer of its token only.
-- KEYS 1 meta hash
-- KEYS 2 open sorted set of job ids by deadline
-- KEYS 3 outbox stream, ids seq-0
-- ARGV 1 instance id
-- ARGV 2 token_hash hex
-- ARGV 3 retention ms
-- RETURNS resumed epoch seq previous_instance init top | unknown | forbidden

local session = redis.call('HMGET', KEYS[1], 'token_hash', 'closed', 'seq', 'instance', 'init', 'top')
if not session[1] or session[2] then
  return {'unknown'}
end
if session[1] ~= ARGV[2] then
  return {'forbidden'}
end
local epoch = string.format('%d', redis.call('HINCRBY', KEYS[1], 'epoch', 1))
redis.call('HSET', KEYS[1], 'instance', ARGV[1])
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[3]}) do
  redis.call('PEXPIRE', key, ARGV[3])
end
return {'resumed', epoch, session[3], session[4] or '', session[5], session[6] or '-1'}
