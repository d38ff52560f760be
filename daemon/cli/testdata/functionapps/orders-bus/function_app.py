import json
import logging
import typing

import azure.functions as func

app = func.FunctionApp()
BUS, STORE = "BusConnection", "AzureWebJobsStorage"


def told(msg: func.ServiceBusMessage) -> dict:
    return {
        "body": msg.get_body().decode("utf-8"),
        "message_id": msg.message_id,
        "delivery_count": msg.delivery_count,
        "content_type": msg.content_type,
        "correlation_id": msg.correlation_id,
        "subject": msg.subject,
        "label": msg.label,
        "reply_to": msg.reply_to,
        "to": msg.to,
        "session_id": msg.session_id,
        "partition_key": msg.partition_key,
        "application_properties": msg.application_properties,
        "user_properties": msg.user_properties,
        "sequence_number": msg.sequence_number,
        "time_to_live": str(msg.time_to_live),
        "enqueued": msg.enqueued_time_utc is not None,
        "expires": msg.expires_at_utc is not None,
        "locked_until": msg.locked_until is not None,
        "lock_token": bool(msg.lock_token),
    }


@app.service_bus_queue_trigger(arg_name="msg", queue_name="orders", connection=BUS)
@app.service_bus_topic_output(arg_name="done", topic_name="handled", connection=BUS)
@app.queue_output(arg_name="$return", queue_name="orders-seen", connection=STORE)
def handle_order(msg: func.ServiceBusMessage, done: func.Out[str]) -> str:
    done.set(msg.get_body().decode("utf-8").upper())
    return json.dumps(told(msg))


@app.service_bus_topic_trigger(arg_name="event", topic_name="handled", subscription_name="mail", connection=BUS)
@app.queue_output(arg_name="mails", queue_name="mails", connection=STORE)
async def send_mail(event: func.ServiceBusMessage, mails: func.Out[str], context: func.Context) -> None:
    mails.set(f"{context.function_name}: {event.get_body().decode()}")


@app.service_bus_queue_trigger(arg_name="readings", queue_name="readings", connection=BUS, cardinality=func.Cardinality.MANY)
@app.queue_output(arg_name="$return", queue_name="readings-seen", connection=STORE)
def collect(readings: typing.List[func.ServiceBusMessage]) -> str:
    """Many messages in one call."""
    return json.dumps({
        "values": [float(r.get_body()) for r in readings],
        "ids": [r.message_id for r in readings],
        "sensors": [r.application_properties.get("sensor") for r in readings],
    })


@app.service_bus_queue_trigger(arg_name="step", queue_name="steps", connection=BUS, is_sessions_enabled=True)
@app.queue_output(arg_name="$return", queue_name="steps-seen", connection=STORE)
def walk(step: func.ServiceBusMessage) -> str:
    logging.info("session %s: %s", step.session_id, step.get_body().decode())
    return f"{step.session_id}:{step.get_body().decode()}"


@app.service_bus_queue_trigger(arg_name="msg", queue_name="dead", connection=BUS)
def dead(msg: func.ServiceBusMessage) -> None:
    raise RuntimeError(f"delivery {msg.delivery_count}")
