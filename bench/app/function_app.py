"""No-op functions: what is measured is everything around them."""


def noop(body):
    return None


async def async_noop(body):
    return None
