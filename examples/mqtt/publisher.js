'use strict'

// Publishes readings at QoS 1, and keeps each until the subscriber has confirmed it.
//
//   TCP_URL=tcp://HOST:PORT node publisher.js [COUNT] [PER_SECOND]
//
// COUNT: how many (without end, if it is left out). PER_SECOND: how often (1). BYTES in the environment: the size of a reading (16).
//
// The broker's acknowledgement (PUBACK) says that the broker of that moment has the message. If that broker ends before the subscriber has
// it, it is lost: brokers share nothing. So the subscriber confirms each reading on a topic of this publisher, and what was not confirmed
// is published again.

const { connect } = require('./client')

const count = Number(process.argv[2] || Infinity)
const perSecond = Number(process.argv[3] || 1)
const filler = 'x'.repeat(Number(process.env.BYTES || 16))
// No new readings come while one that is so far behind is not confirmed.
const WINDOW = 1000
const RESEND_MS = 2000
// Published again at once, at most.
const MOST_RESENT = 100

const publisher = `p${process.pid}-${Math.random().toString(16).slice(2, 8)}`
const unconfirmed = new Map()
const totals = { published: 0, acknowledged: 0, confirmed: 0, again: 0 }
let next = 1
// All before this one are confirmed.
let first = 1
let isSubscribed = false

if (!(count > 0 && perSecond > 0)) {
  console.error('publisher: COUNT and PER_SECOND must be numbers above 0')
  process.exit(2)
}

const client = connect('publisher')

client.on('connect', () => {
  isSubscribed = false
  client.subscribe(`confirmed/${publisher}`, { qos: 1 }, (error) => { isSubscribed = !error })
})
client.on('close', () => { isSubscribed = false })

client.on('message', (topic, payload) => {
  const number = Number(payload.toString())
  if (!unconfirmed.delete(number)) return
  totals.confirmed += 1
  while (first < next && !unconfirmed.has(first)) first += 1
  if (totals.confirmed >= count) finish()
})

function publish (number, reading) {
  reading.at = Date.now()
  const message = JSON.stringify({ publisher, number, first, filler })
  client.publish(`readings/${publisher}`, message, { qos: 1 }, (error) => {
    if (error || reading.isAcknowledged) return
    reading.isAcknowledged = true
    totals.acknowledged += 1
    console.log(`acknowledged ${publisher} ${number}`)
  })
}

// So many per second, whatever the timer's resolution.
const began = Date.now()
setInterval(() => {
  if (!isSubscribed) return
  const due = Math.min(count, Math.floor((Date.now() - began) * perSecond / 1000) + 1)
  while (next <= due && next < first + WINDOW) {
    const reading = { at: 0, isAcknowledged: false }
    unconfirmed.set(next, reading)
    totals.published += 1
    publish(next, reading)
    next += 1
  }
}, Math.min(1000 / perSecond, 100))

setInterval(() => {
  if (!isSubscribed) return
  let resent = 0
  for (const [number, reading] of unconfirmed) {
    // The oldest come first.
    if (resent >= MOST_RESENT || Date.now() - reading.at < RESEND_MS) break
    unconfirmed.delete(number)
    unconfirmed.set(number, reading)
    publish(number, reading)
    totals.again += 1
    resent += 1
  }
}, RESEND_MS / 4)

function finish () {
  console.log(`done: ${JSON.stringify(totals)}`)
  // All is confirmed: what is still under way are copies.
  client.end(true, () => process.exit(0))
}
