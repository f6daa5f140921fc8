-- Browsing lists each message that stays in a state, even if others take from the head and write to the tail between
-- two pages. Due messages are listed in the order in which they can move: ended leases, deferred messages, the list.

-- Return the current index of a payload that was at an index: the same or a lower one. Return -1 if it is gone, since
-- all messages before it are gone too.
local function find(key, index, payload)
  if call('LINDEX', key, index) == payload then return index end
  local indexes = redis.pcall('LPOS', key, payload, 'COUNT', 0)
  if not indexes.err then
    local found = -1
    for _, candidate in ipairs(indexes) do
      if candidate <= index then found = candidate end
    end
    return found
  end
  -- Redis < 6.0.6: there is no LPOS.
  for last = index - 1, 0, -100 do
    local first = math.max(last - 99, 0)
    local chunk = call('LRANGE', key, first, last)
    for n = #chunk, 1, -1 do
      if chunk[n] == payload then return first + n - 1 end
    end
  end
  return -1
end

-- Add to the page the messages of a list after an index; -1 for all of them.
local function browse_list(page, limit, key, index, payload)
  if #page == limit then return end
  local first = index < 0 and 0 or find(key, index, payload) + 1
  for n, found in ipairs(call('LRANGE', key, first, first + limit - #page - 1)) do
    page[#page + 1] = {first + n - 1, found, '', 0}
  end
end

-- Add to the page the messages of a sorted set after an id ('' for all of them), from rank 'first' up to, but not
-- including, rank 'stop'.
local function browse_times(page, limit, times, first, stop, id, due)
  if id ~= '' then
    local score = call('ZSCORE', times, id)
    local next_rank = score and tonumber(score) == tonumber(due) and call('ZRANK', times, id) + 1
    first = math.max(first, next_rank or call('ZCOUNT', times, '-inf', '(' .. due))
  end
  while #page < limit and first < stop do
    local found = call('ZRANGE', times, first, math.min(first + limit - #page, stop) - 1, 'WITHSCORES')
    for n = 1, #found, 2 do
      local payload = call('HGET', payloads, found[n])
      if payload then
        page[#page + 1] = {found[n], payload, found[n + 1], tonumber(call('HGET', deliveries, found[n]) or 0)}
      end
    end
    first = first + #found / 2
  end
end

-- Return the page after a message, which is given by id, time and deliveries, or by index and payload. Without either,
-- return the first page.
local function browse(state, limit, id, due, count, index, payload)
  local page, expired = {}, call('ZCOUNT', leases, '-inf', now)
  local ready = call('ZCOUNT', deferred, '-inf', now)
  if state == 'reserved' then
    browse_times(page, limit, leases, expired, call('ZCARD', leases), id, due)
  elseif state == 'deferred' then
    browse_times(page, limit, deferred, ready, call('ZCARD', deferred), id, due)
  else
    local was_reserved = count > 0 or call('ZSCORE', leases, id)
    if index < 0 then
      if id == '' or was_reserved then browse_times(page, limit, leases, 0, expired, id, due) end
      browse_times(page, limit, deferred, 0, ready, was_reserved and '' or id, due)
    end
    browse_list(page, limit, list, index, payload)
  end
  return page
end
