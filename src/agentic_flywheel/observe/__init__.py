"""What others are told of questions while they are answered: traces, to OpenTelemetry and to Langfuse."""
