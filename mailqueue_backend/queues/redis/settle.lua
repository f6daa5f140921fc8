-- Settlements. Each returns 1, or 0 if the id is not reserved, in which case it changes nothing.

local settle = {}
-- The number of arguments that follow the id.
local arguments = {ack = 0, release = 1, rewrite = 2, bury = 0, put_back = 2}
-- The ids of ended reservations, which settle_all() deletes from the hashes.
local ended = {}

function settle.ack(id)
  local found = call('ZREM', leases, id)
  if found == 1 then ended[#ended + 1] = id end
  return found
end

-- Move a message to a list. If its payload was deleted or evicted, drop the message.
local function push(id, command, key, payload)
  if not call('ZSCORE', leases, id) then return 0 end
  payload = payload or call('HGET', payloads, id)
  if payload then call(command, key, payload) end
  settle.ack(id)
  return payload and 1 or 0
end

-- Move a message to 'deferred'.
local function defer(id, due, payload)
  if not call('ZSCORE', leases, id) then return 0 end
  call('ZADD', deferred, due, id)
  if payload then
    attempt(function() call('HSET', payloads, id, payload) end, function() call('ZREM', deferred, id) end)
  end
  call('ZREM', leases, id)
  call('HDEL', deliveries, id)
  return 1
end

-- A rewrite is a release with a new payload.
function settle.release(id, delay, payload)
  if tonumber(delay) > 0 then return defer(id, now + delay, payload) end
  return push(id, 'RPUSH', list, payload)
end
settle.rewrite = settle.release

function settle.bury(id)
  return push(id, 'RPUSH', dead)
end

-- 'place' is the time that a message had before take() reserved it, or ''. Without it, a message goes to the head of
-- the list, and a suspect ahead of all other suspects. A suspect remains an ended lease, under a new id, so that it
-- cannot be settled twice.
function settle.put_back(id, count, place)
  if tonumber(count) == 0 then
    if place == '' then return push(id, 'LPUSH', list) end
    return defer(id, place)
  end
  local payload = call('ZSCORE', leases, id) and call('HGET', payloads, id)
  if not payload then return 0 end
  if place == '' then place = math.min(now, call('ZRANGE', leases, 0, 0, 'WITHSCORES')[2] - 1) end
  return hold({{id .. '*', payload, count, place}}, function() return settle.ack(id) end)
end

-- Carry out the settlements in ARGV from an index on (how, id, arguments). Return their results and the last error.
local function settle_all(index)
  local found, put_backs, problem = {}, {}, nil
  local function run(n, first)
    local how = ARGV[first]
    local done, result = pcall(settle[how], unpack(ARGV, first + 1, first + 1 + arguments[how]))
    if done then found[n] = result else problem = result end
  end
  while index <= #ARGV do
    local n = #found + 1
    found[n] = 0
    if ARGV[index] == 'put_back' then
      put_backs[#put_backs + 1] = {n, index}
    else
      run(n, index)
    end
    index = index + 2 + arguments[ARGV[index]]
  end
  -- In reverse, since each goes to the head: the messages keep their order.
  for n = #put_backs, 1, -1 do run(unpack(put_backs[n])) end
  delete(ended)
  return found, problem
end
