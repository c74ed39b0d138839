# A collector beside each task (AWS Distro for OpenTelemetry): it reads the process's /metrics and writes CloudWatch metrics in the
# embedded metric format, with the prefix as a dimension, and passes traces on to X-Ray.

locals {
  collected = var.collector != null

  collector_config = {
    for service in ["api", "worker"] : service => yamlencode({
      receivers = merge(
        {
          prometheus = { config = { scrape_configs = [{
            job_name        = "broker-${service}"
            scrape_interval = "${try(var.collector.interval_s, 60)}s"
            static_configs  = [{ targets = ["127.0.0.1:${service == "api" ? local.ports.admin : local.ports[service]}"], labels = { prefix = var.name, service = service } }]
          }] } }
        },
        { otlp = { protocols = { http = { endpoint = "127.0.0.1:4318" } } } },
      )
      processors = {
        batch  = {}
        filter = { metrics = { include = { match_type = "regexp", metric_names = try(var.collector.metrics, []) } } }
      }
      exporters = {
        awsemf = {
          namespace                        = "SandboxBroker/${var.name}/process"
          log_group_name                   = local.log_group[service]
          log_stream_name                  = "metrics/${service}"
          dimension_rollup_option          = "NoDimensionRollup"
          resource_to_telemetry_conversion = { enabled = false }
          metric_declarations = [
            { dimensions = [["prefix", "service"], ["prefix", "service", "outcome"], ["prefix", "service", "queue"]], metric_name_selectors = [".*"] },
          ]
        }
        awsxray = {}
      }
      service = {
        pipelines = merge(
          { metrics = { receivers = ["prometheus"], processors = ["filter", "batch"], exporters = ["awsemf"] } },
          { traces = { receivers = ["otlp"], processors = ["batch"], exporters = ["awsxray"] } },
        )
      }
    })
  }

  collector_containers = {
    for service in ["api", "worker"] : service => [for collector in var.collector[*] : {
      name                   = "collector"
      image                  = collector.image
      essential              = false
      user                   = "65532:65532"
      readonlyRootFilesystem = true
      cpu                    = 0
      memoryReservation      = 64
      environment            = [{ name = "AOT_CONFIG_CONTENT", value = local.collector_config[service] }]
      linuxParameters        = { initProcessEnabled = false, capabilities = { drop = ["ALL"] } }
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          awslogs-group         = local.log_group[service]
          awslogs-region        = local.region
          awslogs-stream-prefix = "collector"
          mode                  = "non-blocking"
          max-buffer-size       = "4m"
        }
      }
    }]
  }
}

resource "aws_iam_role_policy" "collector" {
  for_each = local.collected ? aws_iam_role.task : {}

  name = "collect"
  role = each.value.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid      = "WriteMetrics"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        Resource = "${local.log_group_arn[each.key]}:*"
      }],
      [for traces in [var.collector.traces] : {
        Sid    = "WriteTraces"
        Effect = "Allow"
        Action = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"]
        # AWS knows no resource for these.
        Resource = "*"
      } if traces],
    )
  })
}
