import azure.functions as func
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel

shop = FastAPI()


class Fruit(BaseModel):
    name: str
    weight: float = 0.0


@shop.get("/api/fruit/{name}")
async def fruit(name: str, ripe: bool = False):
    if name == "stone":
        raise HTTPException(status_code=404, detail="that is not a fruit")
    return {"name": name, "ripe": ripe}


@shop.post("/api/fruit")
async def add(new: Fruit):
    return {"added": new.name, "weight": new.weight}


@shop.get("/api/scope")
async def scope(request: Request):
    return {"function": request.scope["azure_functions.function_name"],
            "id": bool(request.scope["azure_functions.invocation_id"]),
            "query": request.url.query, "agent": request.headers.get("user-agent")}


app = func.AsgiFunctionApp(app=shop, http_auth_level=func.AuthLevel.ANONYMOUS)
