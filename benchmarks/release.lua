-- wrk script: sends every request of a file once, says "all sent", and stops its thread.
-- The file: header lines, an empty line; then for each request a line with its DPoP proof (or none),
-- a tab and the body's length in bytes, the body, and a newline.
-- Interrupted after that, wrk calls `done`, which prints one JSON object.

local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long us; } wall; int gettimeofday(wall *, void *);")
local requests, next_one, threads = {}, 0, {}
local permit, fail = '"permit"', '"fail"'
begun, seconds, answered, permitted, refusal = 0, 0, 0, 0, ""

local function now()
  local time = ffi.new("wall")
  ffi.C.gettimeofday(time, nil)
  return tonumber(time.s) + tonumber(time.us) / 1e6
end

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local file = io.open(args[1], "rb")
  local headers = {}
  for line in file:lines() do
    if line == "" then break end
    local name, value = line:match("^([^:]+): (.*)$")
    headers[name] = value
  end
  if headers["Content-Type"] == "application/proto" then
    permit, fail = "\26\6permit", "\26\4fail" -- field 3 of a result, and the text's length
  end
  for line in file:lines() do
    local proof, length = line:match("^(%S*)\t(%d+)$")
    if proof ~= "" then headers["DPoP"] = proof end
    requests[#requests + 1] = wrk.format("POST", nil, headers, file:read(tonumber(length)))
    file:read(1)
  end
  file:close()
end

function request()
  if next_one == 0 then begun = now() end
  if next_one < #requests then
    next_one = next_one + 1
  elseif seconds == 0 then
    seconds = now() - begun
    wrk.thread:stop()
    io.stderr:write("all sent\n")
    io.stderr:flush()
  end
  return requests[next_one]
end

function response(status, _, body)
  answered = answered + 1
  if status == 200 and body:find(permit, 1, true) and not body:find(fail, 1, true) then
    permitted = permitted + 1
  elseif refusal == "" then
    refusal = (status .. " " .. body:sub(1, 300)):gsub('[%c"\\]', " ")
  end
end

function done(summary, latency, _)
  local thread = threads[1]
  local lost = summary.errors.connect + summary.errors.read + summary.errors.write
  io.write(string.format(
    '{"seconds": %f, "answered": %d, "permitted": %d, "p50_ms": %f, "p99_ms": %f, "errors": %d, "refusal": "%s"}\n',
    thread:get("seconds"), thread:get("answered"), thread:get("permitted"),
    latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    lost + summary.errors.timeout, thread:get("refusal")))
end
