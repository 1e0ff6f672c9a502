// The backend of the chat page: asks a (pretended) model and publishes what it says.
//
//   TASKCAST_URL=http://127.0.0.1:3721 PORT=8080 node examples/chat/server.mjs
//
// No dependencies. It also forwards the streams, so that the page needs no CORS and never sees
// the token.

import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

const taskcast = new URL(process.env.TASKCAST_URL ?? 'http://127.0.0.1:3721')
const token = process.env.TASKCAST_TOKEN
const authorization = token ? { Authorization: `Bearer ${token}` } : {}

// A write that Taskcast refused and would refuse again.
class Refused extends Error {
  constructor({ error, code }) {
    super(error)
    this.code = code
  }
}

// Sends a write until it is answered. The key makes a repeat harmless, whatever became of the
// first attempt.
async function write(method, path, body) {
  const headers = {
    ...authorization,
    'Content-Type': 'application/json',
    'Idempotency-Key': randomUUID(),
  }
  for (let pause = 100; ; pause = Math.min(pause * 2, 5_000)) {
    try {
      const answer = await fetch(new URL(path, taskcast), {
        method,
        headers,
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(30_000),
      })
      if (answer.ok) return await answer.json()
      // 4xx will not change by itself; 429 and 5xx may.
      if (answer.status < 500 && answer.status !== 429) throw new Refused(await answer.json())
    } catch (error) {
      if (error instanceof Refused) throw error
    }
    await sleep(pause * (0.5 + Math.random()))
  }
}

// Stands for the model: yields its answer a few characters at a time.
async function* model(question) {
  const words = `You asked: ${question}. Here is an answer that takes a while. `.repeat(8)
  for (const piece of words.match(/.{1,4}/gsu)) {
    await sleep(20)
    yield piece
  }
}

async function answer(task, question) {
  const status = (body) => write('PATCH', `/tasks/${task}/status`, body)
  await status({ status: 'running' })
  try {
    // One request for what has gathered in 50 ms, not one for each token.
    let batch = []
    let sent = Promise.resolve()
    let last = Date.now()
    const flush = async () => {
      const events = batch
      batch = []
      last = Date.now()
      // One after the other: the order of requests is the order of the text.
      sent = sent.then(() => events.length && write('POST', `/tasks/${task}/events`, events))
      await sent
    }
    for await (const text of model(question)) {
      batch.push({
        type: 'llm.delta', data: { text }, seriesId: 'answer', seriesMode: 'accumulate',
      })
      if (Date.now() - last >= 50) await flush()
    }
    await flush()
    await status({ status: 'completed' })
  } catch (error) {
    // The stop button, or the task's ttl, ended it.
    if (error.code === 'task_closed' || error.code === 'invalid_transition') return
    await status({ status: 'failed', error: { message: String(error.message) } })
  }
}

function forward(request, response) {
  const { cookie, ...headers } = request.headers
  const upstream = http.request(new URL(request.url, taskcast), {
    headers: { ...headers, host: taskcast.host, ...authorization },
  })
  upstream.on('response', (from) => {
    response.writeHead(from.statusCode, from.headers)
    from.pipe(response)
    // A cut upstream must be a cut stream for the page, which then resumes.
    from.on('error', () => response.destroy())
    from.on('aborted', () => response.destroy())
  })
  upstream.on('error', () => {
    if (response.headersSent) response.destroy()
    else response.writeHead(502).end()
  })
  response.on('close', () => upstream.destroy())
  upstream.end()
}

const files = { '/': ['index.html', 'text/html'], '/follow.js': ['follow.js', 'text/javascript'] }

const server = http.createServer(async (request, response) => {
  const [, action, id] = request.url.split('/')
  if (request.method === 'GET' && /^\/tasks\/[^/]+\/events(\?|$)/.test(request.url)) {
    return forward(request, response)
  }
  if (request.method === 'GET' && files[request.url]) {
    const [name, type] = files[request.url]
    response.writeHead(200, { 'Content-Type': `${type}; charset=utf-8` })
    return response.end(await readFile(new URL(name, import.meta.url)))
  }
  if (request.method === 'POST' && action === 'ask') {
    let question = ''
    for await (const chunk of request.setEncoding('utf8')) question += chunk
    const task = randomUUID()
    // The ttl ends the task if this process dies in the middle.
    await write('POST', '/tasks', { id: task, type: 'llm.chat', ttl: 600 })
    answer(task, question).catch(console.error)
    return response.end(task)
  }
  if (request.method === 'POST' && action === 'stop') {
    await write('PATCH', `/tasks/${id}/status`, { status: 'cancelled' }).catch(() => {})
    return response.writeHead(204).end()
  }
  response.writeHead(404).end()
})
server.listen(process.env.PORT ?? 8080, '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}/`)
})
