"""An Azure Functions app, as it is for Azure: drover run needs no other file."""

import json
import logging

import azure.functions as func

app = func.FunctionApp()


@app.route(route="orders", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@app.queue_output(arg_name="order", queue_name="orders", connection="AzureWebJobsStorage")
def submit(req: func.HttpRequest, order: func.Out[str]) -> func.HttpResponse:
    """Called for POST /api/orders; the response is sent when the queue has the order."""
    try:
        body = req.get_json()
    except ValueError:
        return func.HttpResponse("the body is not JSON", status_code=400)
    order.set(json.dumps(body))
    return func.HttpResponse(status_code=202)


@app.queue_trigger(arg_name="msg", queue_name="orders", connection="AzureWebJobsStorage")
@app.queue_output(arg_name="receipt", queue_name="receipts", connection="AzureWebJobsStorage")
def orders(msg: func.QueueMessage, receipt: func.Out[str]) -> None:
    """Called once for each message of the queue orders; any exception is a failed attempt."""
    order = msg.get_json()
    total = sum(line["price"] * line["count"] for line in order["lines"])
    logging.info("order %s, attempt %d: %s", order["id"], msg.dequeue_count, total)
    receipt.set(json.dumps({"id": order["id"], "total": total}))  # sent to the queue receipts


@app.queue_trigger(arg_name="msg", queue_name="receipts", connection="AzureWebJobsStorage")
def receipts(msg: func.QueueMessage) -> None:
    logging.info("receipt: %s", msg.get_body().decode())


@app.timer_trigger(arg_name="timer", schedule="0 */5 * * * *")
def report(timer: func.TimerRequest) -> None:
    """Called every five minutes, by one instance."""
    logging.info("report%s", ", late" if timer.past_due else "")
