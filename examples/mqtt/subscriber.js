'use strict'

// Receives readings at QoS 1, each counted once, and confirms each to its publisher.
//
//   TCP_URL=tcp://HOST:PORT node subscriber.js
//
// A reading may come twice: from the broker, which repeats what was not acknowledged, or from a publisher that has missed the confirmation.

const { connect } = require('./client')

// Publishers that are remembered; the one that was silent for the longest is forgotten first.
const MOST_PUBLISHERS = 1000
// How far a publisher goes beyond the first reading that is not confirmed.
const WINDOW = 1000

// Of each publisher the number up to which all are confirmed, and those beyond it that came.
const publishers = new Map()
const totals = { received: 0, duplicates: 0 }

const client = connect('subscriber')

// Subscribed anew each time: a new broker knows nothing of it.
client.on('connect', () => client.subscribe('readings/+', { qos: 1 }, (error) => {
  if (!error) console.log('subscribed')
}))

client.on('message', (topic, payload) => {
  let reading
  try {
    reading = JSON.parse(payload.toString())
  } catch {
    return
  }
  const { publisher, number, first } = reading || {}
  const areNumbers = [number, first].every((value) => Number.isSafeInteger(value) && value >= 1)
  if (topic !== `readings/${publisher}` || !areNumbers || number >= first + WINDOW) return
  if (isNew(publisher, number, first)) {
    totals.received += 1
    console.log(`received ${publisher} ${number}`)
  } else {
    totals.duplicates += 1
  }
  client.publish(`confirmed/${publisher}`, String(number), { qos: 1 })
})

function isNew (publisher, number, first) {
  const known = publishers.get(publisher) || { upTo: 0, ahead: new Set() }
  publishers.delete(publisher)
  publishers.set(publisher, known)
  if (publishers.size > MOST_PUBLISHERS) publishers.delete(publishers.keys().next().value)
  // What the publisher has confirmed, by whichever subscriber, does not come again.
  if (first - 1 > known.upTo) {
    known.upTo = first - 1
    for (const ahead of known.ahead) if (ahead <= known.upTo) known.ahead.delete(ahead)
  }
  if (number <= known.upTo || known.ahead.has(number)) return false
  known.ahead.add(number)
  while (known.ahead.delete(known.upTo + 1)) known.upTo += 1
  return true
}

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    console.log(`done: ${JSON.stringify(totals)}`)
    client.end(true, () => process.exit(0))
  })
}
