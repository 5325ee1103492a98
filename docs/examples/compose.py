from twisted.application.internet import TimerService
from twisted.application.service import Application
from twisted.internet.defer import ensureDeferred

from pubd import Message, Publisher

application = Application("shop")
publisher = Publisher.from_url("amqp://guest:guest@localhost:5672/%2F", spool="sqlite:///shop.db")
publisher.setServiceParent(application)


async def order() -> None:
    receipt = await publisher.submit(Message(exchange="message", routing_key="example.text", body=b"1 teapot"))
    print(await receipt.settled())


TimerService(1, lambda: ensureDeferred(order()).addErrback(lambda why: print(why.value))).setServiceParent(application)
