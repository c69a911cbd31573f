-- Removes an instance's inbox if nothing is left in it; from then on nothing can be put into it.
-- KEYS 1 inbox stream
-- RETURNS closed | busy

if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('XLEN', KEYS[1]) > 0 then
  return {'busy'}
end
redis.call('DEL', KEYS[1])
return {'closed'}
