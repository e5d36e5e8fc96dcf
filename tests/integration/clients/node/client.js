// Drives the library node-nats-streaming by commands on standard input; ../README.md has the commands.
'use strict'

const MS_MARGIN = 20
const readline = require('readline')
const stan = require('node-nats-streaming')

const ACK_TIMEOUT_MS = 2000
const RECONNECT_WAIT_MS = 100

function say (event, facts) {
  process.stdout.write(JSON.stringify({ event, ...facts }) + '\n')
}

let connection
let stopping = false
const subscriptions = new Map()
const unacked = new Map()

function startAt (options, start) {
  const [kind, value] = start.split(':')
  switch (kind) {
    case 'new': return options.setStartAt(stan.StartPosition.NEW_ONLY)
    case 'last': return options.setStartWithLastReceived()
    case 'first': return options.setDeliverAllAvailable()
    case 'sequence': return options.setStartAtSequence(Number(value))
    // the library turns a time into a distance later on, in whole ms: a tick between would reach back
    case 'ago': return options.setStartTime(new Date(Date.now() - Number(value) * 1000 + MS_MARGIN))
    default: throw new Error(`start position ${start}`)
  }
}

// Resolves with the first of the named events; an error event rejects.
function once (emitter, event) {
  return new Promise((resolve, reject) => {
    emitter.once(event, resolve)
    for (const failure of ['error', 'timeout']) {
      emitter.once(failure, (error) => reject(error instanceof Error ? error : new Error(String(error))))
    }
  })
}

const commands = {
  async connect (url, cluster, clientId) {
    connection = stan.connect(cluster, clientId, {
      url,
      ackTimeout: ACK_TIMEOUT_MS,
      maxReconnectAttempts: -1,
      reconnectTimeWait: RECONNECT_WAIT_MS
    })
    await once(connection, 'connect')
    connection.on('error', (error) => say('error', { command: '', text: String(error) }))
    connection.on('reconnect', () => say('reconnected'))
    connection.on('connection_lost', (error) => say('lost', { text: String(error) }))
    say('connected')
  },

  async publish (channel, data) {
    const error = await new Promise((resolve) => connection.publish(channel, data, resolve))
    say('published', { data, error: error ? String(error.message || error) : '' })
  },

  async load (channel, prefix, count, window) {
    let sent = 0
    let outstanding = 0
    stopping = false
    const more = () => {
      while (outstanding < Number(window) && sent < Number(count) && !stopping) {
        const data = `${prefix}${sent++}`
        outstanding++
        say('invoke', { data })
        connection.publish(channel, data, (error) => {
          outstanding--
          say('ack', { data, error: error ? String(error.message || error) : '' })
          more()
        })
      }
      if (outstanding === 0) say('load_done')
    }
    more()
  },

  async stop () {
    stopping = true
  },

  async subscribe (name, channel, start, maxInFlight, ackWait, durable, mode, group) {
    const options = connection.subscriptionOptions()
    startAt(options, start)
    options.setMaxInFlight(Number(maxInFlight)).setAckWait(Number(ackWait) * 1000).setManualAckMode(mode === 'manual')
    if (durable !== '-') options.setDurableName(durable)
    const subscription = group === '-' ? connection.subscribe(channel, options) : connection.subscribe(channel, group, options)
    subscriptions.set(name, subscription)
    subscription.on('message', (message) => {
      if (mode === 'manual') unacked.set(`${name} ${message.getSequence()}`, message)
      say('message', {
        name,
        sequence: message.getSequence(),
        data: String(message.getData()),
        redelivered: message.isRedelivered()
      })
    })
    await once(subscription, 'ready')
    say('subscribed', { name })
  },

  async ack (name, sequence) {
    unacked.get(`${name} ${sequence}`).ack()
    await new Promise((resolve) => connection.nc.flush(resolve))
    say('acked', { name, sequence: Number(sequence) })
  },

  async unsubscribe (name) {
    const ended = once(subscriptions.get(name), 'unsubscribed')
    subscriptions.get(name).unsubscribe()
    await ended
    say('unsubscribed', { name })
  },

  async close_subscription (name) {
    const ended = once(subscriptions.get(name), 'closed')
    subscriptions.get(name).close()
    await ended
    say('subscription_closed', { name })
  },

  async close () {
    const ended = once(connection, 'close')
    connection.close()
    await ended
    say('closed')
  }
}

async function main () {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [command, ...words] = line.trim().split(' ')
    try {
      await commands[command](...words)
    } catch (error) {
      say('error', { command, text: String(error) })
    }
  }
  process.exit(0)
}

main()
