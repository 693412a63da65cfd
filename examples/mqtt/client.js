'use strict'

// A connection to the broker that comes back: after a random time of up to one second, then of up to two, four and so on, 30 s at most.
// Without chance all clients of a broker that ended would be back at the same moment.

const mqtt = require('mqtt')

const FIRST_MS = 1000
const LONGEST_MS = 30000

// The longest wait before the attempt of that number, in milliseconds.
function longestWait (attempt) {
  return Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(attempt, 16))
}

function connect (name) {
  const url = process.env.TCP_URL
  if (!url) {
    console.error(`${name}: TCP_URL is not set: it is the address that the add-on gives, such as tcp://gateway.example.com:20003`)
    process.exit(2)
  }
  const client = mqtt.connect(url, {
    clientId: `${name}-${process.pid}-${Math.random().toString(16).slice(2, 10)}`,
    // A connection that is cut without a word is noticed after 1.5 times this, in seconds.
    keepalive: Number(process.env.KEEPALIVE || 20),
    connectTimeout: 5000,
    // The next broker knows no session of this one: nothing of it may be relied on.
    clean: true,
    // The library's own has neither chance nor growth.
    reconnectPeriod: 0
  })
  let attempt = 0
  client.on('connect', () => {
    attempt = 0
    console.log('connected')
  })
  client.on('close', () => {
    if (client.disconnecting) return
    const wait = Math.random() * longestWait(attempt)
    attempt += 1
    console.log(`not connected: trying again in ${Math.round(wait)} ms`)
    setTimeout(() => client.reconnect(), wait)
  })
  // What fails is followed by a close.
  client.on('error', (error) => console.error(`${name}: ${error.message}`))
  return client
}

module.exports = { connect, longestWait }
