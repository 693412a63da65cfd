'use strict'

// An MQTT broker that listens on $PORT. Messages and sessions are in memory: they end with it.
//
// At SIGTERM it ends all connections, so that clients notice at once and come back to the new version. With ON_SIGTERM=ignore it does
// not, as many servers: it shows what clients get then.

const net = require('node:net')
const aedes = require('aedes')

const port = Number(process.env.PORT || 1883)
const broker = aedes()
const server = net.createServer(broker.handle)

server.on('error', (error) => {
  console.error(`broker: ${error.message}`)
  process.exit(1)
})
// The gateway's probes connect and are reset before they have said anything.
broker.on('clientError', (client, error) => console.error(`broker: ${client.id}: ${error.message}`))
broker.on('connectionError', () => {})
broker.on('client', (client) => console.log(`client ${client.id} connected`))
broker.on('clientDisconnect', (client) => console.log(`client ${client.id} disconnected`))

function end () {
  console.log('SIGTERM: closing all connections')
  // First no new connections, then the end of those that there are.
  server.close()
  broker.close(() => process.exit(0))
}

process.on('SIGTERM', process.env.ON_SIGTERM === 'ignore' ? () => console.log('SIGTERM: ignored') : end)
server.listen(port, '0.0.0.0', () => console.log(`listening on ${port}`))
