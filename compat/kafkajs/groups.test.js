// kafkajs in groups, against the broker at KPY_BOOTSTRAP; test_kafkajs.py starts one and runs this with node --test.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Kafka, logLevel } from 'kafkajs'

const PATIENCE_MS = 60_000
const kafka = new Kafka({ clientId: 'compat', brokers: [process.env.KPY_BOOTSTRAP], logLevel: logLevel.NOTHING })

const unique = (prefix) => `${prefix}-${randomBytes(6).toString('hex')}`

const eventually = async (what, condition) => {
  const deadline = Date.now() + PATIENCE_MS
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `not within ${PATIENCE_MS} ms: ${what}`)
    await sleep(20)
  }
}

const withAdmin = async (use) => {
  const admin = kafka.admin()
  await admin.connect()
  try {
    return await use(admin)
  } finally {
    await admin.disconnect()
  }
}

const createTopic = (topic, numPartitions) =>
  withAdmin((admin) => admin.createTopics({ topics: [{ topic, numPartitions, replicationFactor: 1 }] }))

const produce = async (topic, partitions, first, count) => {
  const producer = kafka.producer({ allowAutoTopicCreation: false })
  await producer.connect()
  const messages = Array.from({ length: count }, (_, index) => ({
    value: `${first + index}`,
    partition: (first + index) % partitions,
  }))
  await producer.send({ topic, messages })
  await producer.disconnect()
}

// A consumer that notes what it owns and what it has read; `read` may be shared with others of its group.
const join = async (topic, groupId, read) => {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 10_000, heartbeatInterval: 300 })
  const member = { consumer, owned: [] }
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    member.owned = payload.memberAssignment[topic] ?? []
    member.isLeader = payload.isLeader
  })
  consumer.on(consumer.events.REBALANCING, () => {
    member.owned = []
  })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({ eachMessage: async ({ message }) => read.push(message.value.toString()) })
  return member
}

const shared = (partitions, ...members) => {
  const owned = members.flatMap((member) => member.owned).sort((a, b) => a - b)
  return JSON.stringify(owned) === JSON.stringify([...Array(partitions).keys()])
}

const hasAll = (read, count) => {
  const values = new Set(read)
  return [...Array(count).keys()].every((number) => values.has(`${number}`))
}

test('two consumers share a topic, one takes over from the other, and nothing is read again', async () => {
  const [topic, group] = [unique('topic'), unique('group')]
  await createTopic(topic, 4)
  await produce(topic, 4, 0, 100)
  const read = []
  const first = await join(topic, group, read)
  const second = await join(topic, group, read)
  await eventually('two members share four partitions', () => shared(4, first, second) && first.owned.length === 2)
  await eventually('every record is read', () => hasAll(read, 100))
  await first.consumer.disconnect()
  await eventually('the other takes over', () => shared(4, second))
  await produce(topic, 4, 100, 40)
  await eventually('every new record is read', () => hasAll(read, 140))
  await second.consumer.disconnect()
  const again = []
  const last = await join(topic, group, again)
  await produce(topic, 4, 140, 4)
  await eventually('the newest records are read', () => again.length >= 4)
  await last.consumer.disconnect()
  assert.deepEqual(again.sort(), ['140', '141', '142', '143'])
})

test('groups are listed, described, reset and deleted', async () => {
  const [topic, group] = [unique('topic'), unique('group')]
  await createTopic(topic, 2)
  await produce(topic, 2, 0, 10)
  const read = []
  const member = await join(topic, group, read)
  await eventually('every record is read', () => hasAll(read, 10))
  await withAdmin(async (admin) => {
    const { groups } = await admin.describeGroups([group])
    assert.equal(groups[0].state, 'Stable')
    assert.equal(groups[0].protocol, 'RoundRobinAssigner')
    assert.equal(groups[0].members.length, 1)
    await assert.rejects(admin.deleteGroups([group]), (error) => error.groups[0].error.type === 'NON_EMPTY_GROUP')
    await member.consumer.disconnect()
    const listed = await admin.listGroups()
    assert.ok(listed.groups.some((each) => each.groupId === group && each.protocolType === 'consumer'))
    const offsets = async () => {
      const [{ partitions }] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
      return partitions.sort((a, b) => a.partition - b.partition).map((each) => each.offset)
    }
    assert.deepEqual(await offsets(), ['5', '5'])
    await admin.resetOffsets({ groupId: group, topic, earliest: true })
    assert.deepEqual(await offsets(), ['-2', '-2'])
    await admin.setOffsets({ groupId: group, topic, partitions: [{ partition: 0, offset: '3' }] })
    assert.deepEqual(await offsets(), ['3', '-2'])
    await admin.deleteGroups([group])
    assert.deepEqual(await offsets(), ['-1', '-1'])
  })
})
