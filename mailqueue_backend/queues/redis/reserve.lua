-- Reservations. held_by() and the functions take_… return a list of {number, payload, deliveries}.

-- Renew and return the reservations of an exchange. 'asked' is the most that it can have reserved.
local function held_by(name, lease, asked)
  local taken = {}
  for n = 1, asked do
    local id = name .. ':' .. n
    local payload = call('ZSCORE', leases, id) and call('HGET', payloads, id)
    if payload then
      call('ZADD', leases, now + lease, id)
      taken[#taken + 1] = {n, payload, tonumber(call('HGET', deliveries, id) or 1)}
    end
  end
  return taken
end

-- Reserve a message by its id in 'times', which is 'leases' or 'deferred'.
local function take_id(name, lease, times, id)
  local payload, count = call('HGET', payloads, id), (call('HGET', deliveries, id) or 0) + 1
  local function remove_old()
    call('ZREM', times, id)
    delete({id})
  end
  if not payload then
    remove_old()
    return {}
  end
  hold({{name .. ':1', payload, count, now + lease}}, remove_old)
  return {{1, payload, count}}
end

-- Reserve up to 'wanted' messages from the head of the list; stop once their payloads reach 'room' bytes.
local function take_head(name, lease, wanted, room)
  local messages, taken = {}, {}
  while #messages < wanted and room > 0 do
    local payload = call('LINDEX', list, #messages)
    if not payload then break end
    local n = #messages + 1
    messages[n], taken[n] = {name .. ':' .. n, payload, 1, now + lease}, {n, payload, 1}
    room = room - #payload
  end
  if #taken > 0 then hold(messages, function() call('LTRIM', list, #taken, -1) end) end
  return taken
end

-- Return the id of the lease that ended first, or nil. Drop messages whose payload was deleted or evicted.
local function first_suspect()
  while true do
    local id = call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 1)[1]
    if not id or call('HEXISTS', payloads, id) == 1 then return id end
    call('ZREM', leases, id)
    delete({id})
  end
end

-- Move up to 'amount' deferred messages that are due to the tail of the list.
local function move_due(amount)
  for _, id in ipairs(call('ZRANGEBYSCORE', deferred, '-inf', now, 'LIMIT', 0, amount)) do
    local payload = call('HGET', payloads, id)
    if payload then call('RPUSH', list, payload) end
    call('ZREM', deferred, id)
    delete({id})
  end
end
