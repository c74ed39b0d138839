# Who may talk to whom: clients to the load balancer, it to the API, the tasks to AWS and the provider. Nothing calls a worker.

resource "aws_security_group" "load_balancer" {
  #checkov:skip=CKV2_AWS_5:attached to the load balancer, which checkov does not follow through a list
  count = local.own_load_balancer ? 1 : 0

  name        = "${var.name}-load-balancer"
  description = "Sandbox broker: clients to the load balancer"
  vpc_id      = var.vpc_id
  tags        = local.tags
}

resource "aws_security_group" "task" {
  #checkov:skip=CKV2_AWS_5:attached to the services, which checkov does not follow through a map
  for_each = local.own_security_groups ? toset(["api", "worker"]) : toset([])

  name        = "${var.name}-${each.key}"
  description = "Sandbox broker: ${each.key} tasks"
  vpc_id      = var.vpc_id
  tags        = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "https" {
  for_each = local.own_load_balancer ? toset(var.client_cidrs) : toset([])

  security_group_id = aws_security_group.load_balancer[0].id
  description       = "HTTPS from clients"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_ingress_rule" "http" {
  #checkov:skip=CKV_AWS_260:port 80 answers with a redirect to HTTPS and nothing else
  for_each = local.own_load_balancer ? toset(var.client_cidrs) : toset([])

  security_group_id = aws_security_group.load_balancer[0].id
  description       = "HTTP from clients, redirected"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
}

resource "aws_vpc_security_group_egress_rule" "to_api" {
  count = local.own_load_balancer ? 1 : 0

  security_group_id            = aws_security_group.load_balancer[0].id
  description                  = "Requests and health checks"
  referenced_security_group_id = local.task_security_group["api"]
  ip_protocol                  = "tcp"
  from_port                    = local.ports.api
  to_port                      = local.ports.api
}

resource "aws_vpc_security_group_ingress_rule" "from_load_balancer" {
  count = local.own_security_groups ? 1 : 0

  security_group_id            = aws_security_group.task["api"].id
  description                  = "Requests and health checks"
  referenced_security_group_id = local.listener.security_group
  ip_protocol                  = "tcp"
  from_port                    = local.ports.api
  to_port                      = local.ports.api
}

# Operators: the listener 8443, from where they are only.
resource "aws_vpc_security_group_ingress_rule" "admin" {
  for_each = local.own_load_balancer ? toset(var.admin_cidrs) : toset([])

  security_group_id = aws_security_group.load_balancer[0].id
  description       = "HTTPS from operators"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 8443
  to_port           = 8443
}

resource "aws_vpc_security_group_egress_rule" "to_api_admin" {
  count = local.admin_listener && local.own_load_balancer ? 1 : 0

  security_group_id            = aws_security_group.load_balancer[0].id
  description                  = "Operators' requests and health checks"
  referenced_security_group_id = local.task_security_group["api"]
  ip_protocol                  = "tcp"
  from_port                    = local.ports.admin
  to_port                      = local.ports.admin
}

resource "aws_vpc_security_group_ingress_rule" "admin_from_load_balancer" {
  count = local.own_security_groups && local.admin_listener ? 1 : 0

  security_group_id            = aws_security_group.task["api"].id
  description                  = "Operators' requests and health checks"
  referenced_security_group_id = local.listener.security_group
  ip_protocol                  = "tcp"
  from_port                    = local.ports.admin
  to_port                      = local.ports.admin
}

# Ways out: AWS, the ports of provider and hooks (workers only), and a collector of traces. A security group takes no rule twice:
# who is reached at port 443 is one set, and a hook or collector at an address and port that are open has no rule of its own.
locals {
  https_cidrs = {
    api = var.aws_cidrs
    worker = distinct(concat(
      var.aws_cidrs,
      contains(var.provider_ports, 443) ? var.provider_cidrs : [],
      contains(var.hook_ports, 443) ? var.hook_cidrs : [],
    ))
  }
  other_ports = {
    for whose, of in { provider = [var.provider_ports, var.provider_cidrs], hooks = [var.hook_ports, var.hook_cidrs] } : whose => {
      for pair in setproduct([for port in of[0] : tostring(port) if port != 443], of[1]) :
      "${pair[0]} ${pair[1]}" => { port = tonumber(pair[0]), cidr = pair[1] }
    }
  }
}

resource "aws_vpc_security_group_egress_rule" "https" {
  for_each = local.own_security_groups ? merge([
    for service, cidrs in local.https_cidrs : { for cidr in cidrs : "${service} ${cidr}" => { service = service, cidr = cidr } }
  ]...) : {}

  security_group_id = aws_security_group.task[each.value.service].id
  description       = "AWS and the provider"
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "provider" {
  for_each = local.own_security_groups ? local.other_ports.provider : {}

  security_group_id = aws_security_group.task["worker"].id
  description       = "The provider"
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
}

resource "aws_vpc_security_group_egress_rule" "hooks" {
  for_each = local.own_security_groups ? {
    for key, way in local.other_ports.hooks : key => way if !contains(keys(local.other_ports.provider), key)
  } : {}

  security_group_id = aws_security_group.task["worker"].id
  description       = "Hooks"
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
}

locals {
  otlp_port = var.otlp_endpoint == null ? null : coalesce(
    try(tonumber(regex("^[a-z]+://[^/:]+:([0-9]+)", var.otlp_endpoint)[0]), null),
    startswith(coalesce(var.otlp_endpoint, "-"), "https://") ? 443 : 80,
  )
  # Whom the other rules reach at its port.
  other_cidrs = {
    api    = []
    worker = [for way in merge(values(local.other_ports)...) : way.cidr if way.port == local.otlp_port]
  }
}

resource "aws_vpc_security_group_egress_rule" "otlp" {
  for_each = local.own_security_groups && local.otlp_port != null ? {
    for pair in setproduct(["api", "worker"], var.otlp_cidrs) : "${pair[0]} ${pair[1]}" => { service = pair[0], cidr = pair[1] }
    if !contains(local.otlp_port == 443 ? local.https_cidrs[pair[0]] : local.other_cidrs[pair[0]], pair[1])
  } : {}

  security_group_id = aws_security_group.task[each.value.service].id
  description       = "Traces"
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = local.otlp_port
  to_port           = local.otlp_port
}

# AWS without a way through the internet.

locals {
  interface_endpoints = var.create_vpc_endpoints ? toset(["sqs", "secretsmanager", "logs", "ecr.api", "ecr.dkr"]) : toset([])
  gateway_endpoints   = var.create_vpc_endpoints ? toset(["dynamodb", "s3"]) : toset([])
}

# Private DNS sends every caller of the VPC to these endpoints, so the whole VPC is admitted: a group that admits only the
# broker's tasks would cut off its neighbours.
resource "aws_security_group" "endpoints" {
  #checkov:skip=CKV2_AWS_5:attached to the endpoints below, which checkov does not follow through for_each
  count = var.create_vpc_endpoints ? 1 : 0

  name        = "${var.name}-endpoints"
  description = "Sandbox broker: the VPC to its endpoints"
  vpc_id      = var.vpc_id
  tags        = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  for_each = var.create_vpc_endpoints ? toset(var.vpc_cidr_blocks) : toset([])

  security_group_id = aws_security_group.endpoints[0].id
  description       = "From the whole VPC"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "to_endpoints" {
  for_each = var.create_vpc_endpoints ? aws_security_group.task : {}

  security_group_id            = each.value.id
  description                  = "To the VPC endpoints"
  referenced_security_group_id = aws_security_group.endpoints[0].id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.interface_endpoints

  vpc_id              = var.vpc_id
  service_name        = "com.amazonaws.${local.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = var.private_subnet_ids
  security_group_ids  = aws_security_group.endpoints[*].id
  private_dns_enabled = true
  tags                = merge(local.tags, { Name = "${var.name}-${each.key}" })
}

resource "aws_vpc_endpoint" "gateway" {
  for_each = local.gateway_endpoints

  vpc_id            = var.vpc_id
  service_name      = "com.amazonaws.${local.region}.${each.key}"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = var.private_route_table_ids
  tags              = merge(local.tags, { Name = "${var.name}-${each.key}" })

}

# The gateways of DynamoDB and S3 are public addresses by prefix list.
resource "aws_vpc_security_group_egress_rule" "to_gateways" {
  for_each = local.own_security_groups ? {
    for pair in setproduct(["api", "worker"], local.gateway_endpoints) : "${pair[0]} ${pair[1]}" => { service = pair[0], endpoint = pair[1] }
  } : {}

  security_group_id = aws_security_group.task[each.value.service].id
  description       = "To ${each.value.endpoint} through its gateway"
  prefix_list_id    = aws_vpc_endpoint.gateway[each.value.endpoint].prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}
