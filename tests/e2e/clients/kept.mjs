// The same reads again and again, as named statements of node-postgres: kept.mjs URL.
import { createRequire } from 'node:module'
import { join } from 'node:path'

const require = createRequire(join(process.env.TIDEGATE_NODE_MODULES ?? import.meta.dirname, 'index.js'))
const pg = require('pg')
const ROUNDS = 10

const clients = []
for (let n = 0; n < 2; n++) {
  const client = new pg.Client({ connectionString: process.argv[2] })
  await client.connect()
  clients.push(client)
}
for (let round = 0; round < ROUNDS; round++) {
  for (let id = 1; id <= 10; id++) {
    for (const client of clients) {
      const text = 'SELECT id, v, d::text, s, m FROM t WHERE id = $1::int AND id > 0'
      const { rows, fields } = await client.query({ name: 'kept', text, values: [id] })
      console.log('row', JSON.stringify(rows), fields.map((field) => field.dataTypeID).join())
    }
  }
}
for (const client of clients) await client.end()
