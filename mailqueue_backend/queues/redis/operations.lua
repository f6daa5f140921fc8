-- The operations that Python calls. 'again' is '1' if an earlier call may have carried out the operation.

local operation = {}

-- Settle and reserve. Return {result of each settlement, reservations, 1 if a suspect waits, else 0}. 'asked' is how
-- many messages the first call of this name wanted, and 'held' how many its consumer holds after the settlements. If a
-- settlement fails, the others are still carried out, and nothing is reserved.
function operation.exchange(again, name, lease, asked, wanted, held, room)
  prepare()
  local found, problem = settle_all(9)
  if problem then return type(problem) == 'table' and problem or redis.error_reply(problem) end
  local taken = again == '1' and held_by(name, lease, asked) or {}
  -- A first call that arrives after its repetition must not overwrite the messages reserved under the same ids.
  if again ~= '1' and call('ZSCORE', leases, name .. ':1') then wanted = 0 end
  local suspect = first_suspect()
  if #taken == 0 and tonumber(wanted) > 0 then
    if suspect and held == '0' then
      taken = take_id(name, lease, leases, suspect)
      suspect = first_suspect()
    else
      move_due(wanted)
      taken = take_head(name, lease, tonumber(wanted), tonumber(room))
    end
  end
  return {found, taken, suspect and 1 or 0}
end

-- Reserve a message: one whose lease has ended, else the head of the list, else a deferred one.
function operation.read(again, name, lease)
  prepare()
  local taken = again == '1' and held_by(name, lease, 1) or {}
  local suspect = #taken == 0 and first_suspect()
  if suspect then taken = take_id(name, lease, leases, suspect) end
  if #taken == 0 then taken = take_head(name, lease, 1, 1) end
  while #taken == 0 do
    local id = call('ZRANGE', deferred, 0, 0)[1]
    if not id then break end
    taken = take_id(name, lease, deferred, id)
  end
  return taken
end

-- Reserve a message by its id, else by its payload in the list. Return {} if it is gone or reserved.
function operation.take(again, name, lease, id, payload)
  prepare()
  local taken = again == '1' and held_by(name, lease, 1) or {}
  if #taken > 0 then return taken end
  local ends = call('ZSCORE', leases, id)
  if ends then return tonumber(ends) <= now and take_id(name, lease, leases, id) or {} end
  if call('ZSCORE', deferred, id) then return take_id(name, lease, deferred, id) end
  local held = name .. ':1'
  local found = hold({{held, payload, 1, now + lease}}, function() return call('LREM', list, 1, payload) end)
  if found == 1 then return {{1, payload, 1}} end
  call('ZREM', leases, held)
  delete({held})
  return {}
end

-- Renew the leases of these ids. Return 1 for each that is reserved, else 0.
function operation.extend(_, lease)
  prepare()
  local found = {}
  for index = 4, #ARGV do
    found[#found + 1] = call('ZADD', leases, 'XX', 'CH', now + lease, ARGV[index])
  end
  return found
end

-- Return {due, deferred, reserved, listed in the dead queue}.
function operation.counts()
  local ready, expired = call('ZCOUNT', deferred, '-inf', now), call('ZCOUNT', leases, '-inf', now)
  return {
    call('LLEN', list) + ready + expired,
    call('ZCARD', deferred) - ready,
    call('ZCARD', leases) - expired,
    call('LLEN', dead)
  }
end

-- Return a page; each message is {index in its list or id, payload, time or '', deliveries}.
function operation.browse(_, state, limit, id, due, count, index, payload)
  return browse(state, tonumber(limit), id, due, tonumber(count), tonumber(index), payload)
end

-- Return {{state, id, payload, time, deliveries}} of a message outside the lists; {} if it is gone.
function operation.look(_, id)
  local payload, ends = call('HGET', payloads, id), call('ZSCORE', leases, id)
  local time = ends or call('ZSCORE', deferred, id)
  if not payload or not time then return {} end
  local state = tonumber(time) <= now and 'due' or ends and 'reserved' or 'deferred'
  return {{state, id, payload, time, tonumber(call('HGET', deliveries, id) or 0)}}
end

return operation[ARGV[1]](unpack(ARGV, 2, 9))
