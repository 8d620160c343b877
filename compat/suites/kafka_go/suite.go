// Package suites asks for kafka-go with all that its tests need; kafka_go.py runs them.
package suites

import _ "github.com/segmentio/kafka-go"
