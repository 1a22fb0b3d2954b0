"""LangChain's standard tests of a chat model, against the gateway."""

import os

import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

URL = os.environ["ASSAY_URL"]


class TestChat(ChatModelIntegrationTests):
    chat_model_class = ChatOpenAI

    @property
    def chat_model_params(self):
        return {
            "model": "nano",
            "base_url": f"{URL}/v1",
            "api_key": "unused",
            "temperature": 0,
            "frequency_penalty": 2,
            "stream_usage": True,
            "seed": 1,
            "max_tokens": 600,
            # So small a model would not come to an end of its calls by itself.
            "model_kwargs": {"parallel_tool_calls": False},
            "max_retries": 0,
            "timeout": 60,
        }

    @property
    def supports_json_mode(self):
        return True

    @property
    def structured_output_kwargs(self):
        return {"method": "json_schema"}

    @pytest.mark.xfail(reason="nothing forces a call here, and so small a model makes none")
    def test_agent_loop(self, model):
        super().test_agent_loop(model)

    @pytest.mark.xfail(reason="so small a model calls, but not with the number that it was asked for")
    def test_tool_calling(self, model):
        super().test_tool_calling(model)

    @pytest.mark.xfail(reason="so small a model calls, but not with the number that it was asked for")
    async def test_tool_calling_async(self, model):
        await super().test_tool_calling_async(model)

    @pytest.mark.xfail(reason="so small a model does not repeat Chinese names")
    def test_unicode_tool_call_integration(self, model, **more):
        super().test_unicode_tool_call_integration(model, **more)

    @pytest.mark.xfail(reason="the schema stands in the prompt alone, which so small a model ignores")
    def test_json_mode(self, model):
        super().test_json_mode(model)

    @pytest.mark.xfail(reason="the schema leaves room for other properties, and so small a model fills it")
    def test_structured_output_pydantic_2_v1(self, model):
        super().test_structured_output_pydantic_2_v1(model)
